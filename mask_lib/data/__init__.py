"""From a data folder to honest folds.

Read archives, layout, photos, external, rgby, store, hashes, pixels, duplicates, splits, looks, clean_labels.
"""
