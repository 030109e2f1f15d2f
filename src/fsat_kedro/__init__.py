"""An audio tagger: labelled sound clips in, a scored ensemble of two-input networks out."""

__version__ = "0.1.0"
