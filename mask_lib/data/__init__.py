"""From a data folder to honest folds.

Read archives, layout, tables, photos, external, rgby, store, hashes, pixels, duplicates, splits, clean_labels.
"""
