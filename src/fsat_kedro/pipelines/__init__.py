"""The pipelines: wiring in `pipeline.py`, what the nodes do in `nodes.py`."""
