"""Tables as spreadsheets, old systems and people write them."""

import re

import pytest

from fsat_kedro.data.csv_tables import parse_booleans, parse_integers, read_table, require_all
from fsat_kedro.errors import InputError

PLAIN = "fname,label\na.wav,Bark\nb.wav,Meow\n"


def read(content, required=("fname", "label"), optional=()):
    content = content.encode() if isinstance(content, str) else content
    return read_table(content, "train.csv", required=list(required), optional=list(optional))


def message_of(content, **columns):
    with pytest.raises(InputError) as error:
        read(content, **columns)
    return str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.rstrip("\n"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "label,fname\nBark,a.wav\nMeow,b.wav\n",
        "license,fname,,label,\nCC0,a.wav,,Bark,\nCC0,b.wav,,Meow,\n",
        "\n \nfname,label\n\na.wav,Bark\n  \n,\nb.wav,Meow\n\n",
        " fname , label\n a.wav\t, Bark \nb.wav  ,\tMeow\n",
        '"fname","label"\n"a.wav","Bark"\nb.wav, "Meow"\n',
    ],
    ids=[
        "plain", "no last line end", "byte order mark", "UTF-16", "UTF-16 of the other order",
        "Windows line ends", "old Mac line ends", "other column order", "more columns",
        "blank lines", "spaces", "quotes",
    ],
)  # fmt: skip
def test_every_way_to_save_the_table_reads_the_same(content):
    table = read(content)
    assert table.columns.tolist() == ["fname", "label"]
    assert table["fname"].tolist() == ["a.wav", "b.wav"]
    assert table["label"].tolist() == ["Bark", "Meow"]


def test_quoted_values_keep_commas_quotes_and_line_ends():
    table = read('fname,label\n"a,""b"".wav","Bark\r\nloud"\n')
    assert table.to_numpy().tolist() == [['a,"b".wav', "Bark\r\nloud"]]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_other_text_than_utf_8_is_read_as_windows_1252_with_a_warning(encoding, caplog):
    table = read("fname,label\ncafé.wav,Geräusch\n".encode(encoding))
    assert table.to_numpy().tolist() == [["café.wav", "Geräusch"]]
    assert caplog.messages == ["train.csv is not in UTF-8: read as Windows-1252"]


def test_utf_8_is_read_without_a_warning(caplog):
    assert read("fname,label\ncafé 🐕.wav,吠える\n")["label"].tolist() == ["吠える"]
    assert caplog.messages == []


def test_the_index_is_the_line_in_which_a_row_begins():
    content = '\nfname,label\n\na.wav,"Bark\n\nloud"\r\nb.wav,Meow\r\n\r\nc.wav,Hiss'
    assert read(content).index.tolist() == [4, 7, 9]


def test_optional_columns_are_read_if_they_exist():
    table = read("fname,label,usage\na.wav,Bark,Public\n", optional=["usage", "fold"])
    assert table.columns.tolist() == ["fname", "label", "usage"]


def test_missing_values_of_a_short_row_are_empty():
    assert read("fname,label\na.wav\n").to_numpy().tolist() == [["a.wav", ""]]


def test_values_that_look_like_missing_ones_stay_text():
    assert read("fname,label\nNaN,NA\n1e3,null\n").to_numpy().tolist() == [
        ["NaN", "NA"],
        ["1e3", "null"],
    ]


@pytest.mark.parametrize(
    ("header", "missing", "existing"),
    [
        ("fname,Label", "label", "fname, Label"),
        ("fname;label", "fname", "fname;label"),
        ("a.wav,Bark", "fname", "a.wav, Bark"),
        ("fname,\x1b[31mBark", "label", r"fname, \x1b[31mBark"),
    ],
)
def test_a_missing_column_is_an_error_that_names_the_existing_ones(header, missing, existing):
    message = message_of(f"{header}\na.wav,Bark\n")
    assert message.startswith(
        f"train.csv, line 1: no column {missing}; its columns are {existing}: "
    )


def test_a_repeated_column_is_an_error():
    message = message_of("fname,label,label\na.wav,Bark,Meow\n")
    assert message == "train.csv has 2 columns label: keep one"


def test_too_many_values_are_an_error_that_names_line_and_column():
    message = message_of("fname,label\na.wav,Bark\n\nb.wav,Meow, loud\nc.wav,Hiss,,s\nd.wav,Hum,\n")
    assert message.startswith("train.csv, line 4, column 3: ")
    assert message.endswith(
        ": more values than the 2 columns of the header, in 2 lines: "
        "put values with commas into quotes"
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('fname,label\na.wav,Bark\n\nb.wav,"Meow\nc.wav,Hiss\n', 4),
        ('fname,label\na.wav,"Bark\nb.wav,"Meow"\n', 2),
        ('fname,label\na.wav,"Bark"s\n', 2),
        ('fname,label\na.wav,"' + "Bark\n" * 50_000, 2),
        ('"fname,label\na.wav,Bark\n', 1),
    ],
)
def test_a_quote_that_is_not_closed_is_an_error_that_names_the_line(content, line):
    message = message_of(content)
    assert message.startswith(f"train.csv, line {line}: unmatched quotes (")
    assert "close them" in message


@pytest.mark.parametrize("content", ["", " \n\r\n", "\ufeff"])
def test_an_empty_file_is_an_error(content):
    assert message_of(content) == "train.csv is empty: download it again"


def test_a_table_without_rows_is_an_error():
    assert message_of("fname,label\n\n").startswith("train.csv has no rows below its header: ")


@pytest.mark.parametrize(
    "content",
    [
        b"fname,label\na\0.wav,Bark\n",
        PLAIN.encode("utf-16-le"),
        b"\xff\xfe" + PLAIN.encode("utf-16-le") + b"\n",
        b"\xff\xd8\xff\xe0 a picture \x81\x8d",
    ],
    ids=["NUL", "UTF-16 without its mark", "half a character of UTF-16", "a picture"],
)
def test_a_file_that_is_not_text_is_an_error(content):
    message = message_of(content)
    assert message.startswith("train.csv is not text in UTF-8: ")
    assert "save it in UTF-8" in message


def test_invalid_values_are_one_error_with_file_line_column_count_and_remedy():
    table = read("fname,label\n\na.wav,\nb.wav,Bark\nc.wav,\n")
    message = (
        "train.csv, line 3, column label: '' is not a label (2 such lines): correct or remove them"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        require_all(table["label"] != "", table["label"], "train.csv", "a label")
    require_all(table["label"] != "Meow", table["label"], "train.csv", "a label")


def column(name, values):
    return read(f"{name}\n" + "\n".join(values), required=[name])[name]


def test_booleans_are_parsed_from_common_spellings():
    yes, no = ["1", "1.0", "True", "true", "TRUE", "yes"], ["0", "0.0", "False", "false", "no"]
    values = parse_booleans(column("verified", yes + no), "train.csv")
    assert values.dtype == "boolean"
    assert values.tolist() == [True] * len(yes) + [False] * len(no)


@pytest.mark.parametrize("value", ["2", "maybe", "-1", "nan", "1 0"])
def test_an_invalid_boolean_is_an_error(value):
    with pytest.raises(InputError, match=r"train\.csv, line 3, column verified: .* is not 1 or 0"):
        parse_booleans(column("verified", ["1", value, "0"]), "train.csv")


def test_integers_are_parsed():
    values = parse_integers(column("fold", ["1", "05", "3.0", "-2"]), "esc50.csv")
    assert values.dtype == "Int64"
    assert values.tolist() == [1, 5, 3, -2]


@pytest.mark.parametrize("value", ["1.5", "one", "nan", "inf", "1e3", "1 2", "²", "9" * 30])
def test_an_invalid_integer_is_an_error(value):
    with pytest.raises(
        InputError, match=r"line 3, column fold: .* is not a whole number \(1 such line"
    ):
        parse_integers(column("fold", ["1", value]), "esc50.csv")
