"""From folds to a finished run.

Read dataset, loss, mixing, optimizer, step, loop, run_folder, runs; then averaging, lr_finder, pseudo_labels,
policy_search, tracking, comparison.
"""
