"""The narrowest MobileNetV2 of the recipe, for tests that build real networks."""

from fsat_kedro.parameters import Model

NARROW = Model(
    encoder="mobilenet_v2",
    frozen_stages=0,
    freeze_normalisation=False,
    summary_features=True,
    head="mlp",
    weights=None,
    width=0.35,
    momentum={"backbone": 0.9, "others": 0.9},
    precision="float32",
)
