import pandas as pd

from fsat_kedro.hooks.progress import clips_in_words, scores_in_lines


def test_clips_are_told_with_their_most_frequent_reasons():
    reasons = pd.Series(["gone"] * 3 + list("abcdef"))
    words = clips_in_words(
        {"listed": 20, "rejected": 9, "with_warnings": 0, "unlisted": 4}, reasons
    )
    assert words.startswith("20 clips, 9 rejected (gone: 3, a: 1, ")
    assert words.endswith(", 2 more reasons), 4 unlisted")


def test_scores_stand_below_each_other_without_single_folds():
    scores = pd.DataFrame(
        {
            "clips": ["fold 1", "cross-validation", "test private"],
            "n_clips": [40, 9473, 1300],
            "map_at_3": [0.1, 0.8555, 1.0],
            "map_at_3_low": [0.1, 0.81, 0.8],
            "map_at_3_high": [0.1, 0.8967, 1.0],
            "accuracy": [0.1, 0.8, 0.9],
            "accuracy_low": [0.1, 0.75, 0.7],
            "accuracy_high": [0.1, 0.855, 1.0],
        }
    )
    head, *lines = scores_in_lines(scores).splitlines()
    assert lines == [
        "cross-validation    9473   0.856 (0.810 to 0.897)   0.800 (0.750 to 0.855)",
        "test private        1300   1.000 (0.800 to 1.000)   0.900 (0.700 to 1.000)",
    ]
    assert head.index("MAP@3") == lines[0].index("0.856")
    assert head.index("accuracy") == lines[0].index("0.800")
