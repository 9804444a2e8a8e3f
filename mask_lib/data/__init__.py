"""From a data folder to honest folds.

Read archives, layout, photos, external, rgby, store, hashes, duplicates, splits, clean_labels.
"""
