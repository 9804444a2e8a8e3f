"""From a folder of noisy photos of people to an 18-class submission.

The modules, in the order in which they import one another, which is also a good order to read them
in, are listed in `READING_ORDER`; a test holds each one to it.
"""

READING_ORDER = (
    "files",
    "labels",
    "config",
    "archives",
    "layout",
    "photos",
    "brush",
    "looks",
    "faces",
    "backdrops",
    "hair",
    "clothes",
    "painting",
    "crowd",
    "studio",
    "faults",
    "sample",
    "store",
    "folds",
    "scores",
    "devices",
    "models",
    "augment",
    "inference",
    "features",
    "losses",
    "training",
    "runs",
    "ensemble",
    "tracking",
    "galleries",
    "plots",
    "parameters",
    "headless",
)
