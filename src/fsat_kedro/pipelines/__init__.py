"""Kedro pipelines: wiring in `pipeline.py`, node functions in `nodes.py`."""
