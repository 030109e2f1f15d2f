"""Raw folders in every layout, unpacked and zipped, with files of a few bytes."""

import zipfile

from fsat_kedro.data.raw_files import open_raw_file

CHALLENGE = {
    "train.csv": "fname,label,manually_verified\na.wav,Bark,1\nb.wav,Meow,0\n",
    "sample_submission.csv": "fname,label\nc.wav,Laughter Hi-Hat Flute\n",
    "audio_train/a.wav": "sound a",
    "audio_train/b.wav": "sound b",
    "audio_test/c.wav": "sound c",
}
RELEASE = {
    "FSDKaggle2018.meta/train_post_competition.csv": (
        "fname,label,manually_verified,freesound_id,license\n"
        "a.wav,Bark,1,5,CC0\nb.wav,Meow,0,6,CC0\n"
    ),
    "FSDKaggle2018.meta/test_post_competition.csv": (
        "fname,label,usage,freesound_id,license\n"
        "c.wav,Bark,Public,7,CC0\nd.wav,Meow,Private,8,CC0\ne.wav,None,Ignored,9,CC0\n"
    ),
    "FSDKaggle2018.audio_train/a.wav": "sound a",
    "FSDKaggle2018.audio_train/b.wav": "sound b",
    "FSDKaggle2018.audio_test/c.wav": "sound c",
    "FSDKaggle2018.audio_test/d.wav": "sound d",
    "FSDKaggle2018.audio_test/e.wav": "sound e",
}
ESC50 = {
    "meta/esc50.csv": "filename,fold,target,category\na.wav,1,0,dog\nb.wav,5,1,rain\n",
    "audio/a.wav": "sound a",
    "audio/b.wav": "sound b",
}
URBANSOUND8K = {
    "metadata/UrbanSound8K.csv": (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "7-0-0-0.wav,7,0.0,4.0,1,1,3,dog_bark\n"
        "7-0-0-1.wav,7,4.0,8.0,1,1,3,dog_bark\n"
        "8-0-0-0.wav,8,0.5,4.5,2,10,8,siren\n"
    ),
    "audio/fold1/7-0-0-0.wav": "sound 7-0",
    "audio/fold1/7-0-0-1.wav": "sound 7-1",
    "audio/fold10/8-0-0-0.wav": "sound 8-0",
}
PER_CLASS = {
    "dog/1.wav": "dog 1",
    "dog/2.wav": "dog 2",
    "cat/1.wav": "cat 1",
    "cat/3.FLAC": "cat 3",
}
TABLE = {
    "labels.csv": "fname,label\na/1.wav,Bark\nb/1.wav,Meow\n2.wav,Bark\n",
    "sounds/a/1.wav": "sound a/1",
    "sounds/b/1.wav": "sound b/1",
    "sounds/b/2.wav": "sound 2",
}


def unpacked(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def zipped(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def zipped_in_one_archive(folder, files):
    """As GitHub offers it: everything in a folder named after the branch."""
    members = {"ESC-50-master/": "", "ESC-50-master/audio/": ""}
    members |= {f"ESC-50-master/{name}": content for name, content in files.items()}
    zipped(folder / "ESC-50-master.zip", members)


def zipped_by_folder(folder, files):
    """As published: one archive per folder, with that folder inside."""
    for top in {name.split("/")[0] for name in files}:
        zipped(folder / f"{top}.zip", {n: x for n, x in files.items() if n.split("/")[0] == top})


def contents(table):
    """The content of each path, by file name."""
    read = {}
    for clip in table.itertuples():
        with open_raw_file(clip.path) as file:
            read[clip.fname] = file.read().decode()
    return read
