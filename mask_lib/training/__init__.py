"""From folds to a finished run.

Read dataset, targets, loss, mixing, optimizer, loop, run_folder, runs; then averaging, lr_finder, pseudo_labels,
policy_search, tracking, comparison, explain.
"""
