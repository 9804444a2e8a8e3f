"""The words everything is said in: files, labels, checks, config, scores, interrupts, gpus, results."""
