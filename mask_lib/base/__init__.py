"""The words everything is said in: files, checks, plain_yaml, tasks, labels, config, scores, interrupts, gpus,
results."""
