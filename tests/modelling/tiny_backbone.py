"""A backbone that takes MobileNetV2's place in tests that build or train many networks."""


def build_tiny_backbone(settings, weights):
    """Build a backbone that halves its input as MobileNetV2 does, and is traced in a second.

    It replaces `mobilenet_v2._load_backbone`.
    """
    # Imported here: `whole_runs.make_tiny_project` copies the function alone.
    import keras
    from keras import layers

    image = keras.Input((None, None, 3))
    features = layers.Conv2D(4, 3, strides=2, padding="same", name="Conv1")(image)
    for index in range(1, 5):
        features = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"pad_{index}")(features)
        features = layers.DepthwiseConv2D(3, strides=2, name=f"depthwise_{index}")(features)
    features = layers.Conv2D(8, 1, name="expand")(features)
    features = layers.BatchNormalization(name="normalisation")(features)
    backbone = keras.Model(image, layers.ReLU(6, name="relu")(features), name="tiny_backbone")
    if weights is not None:
        backbone.load_weights(weights)
    return backbone
