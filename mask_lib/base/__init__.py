"""The words everything is said in: files, labels, config, scores, interrupts, gpus."""
