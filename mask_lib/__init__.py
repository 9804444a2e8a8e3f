"""From a folder of noisy photos of people to a submission, one wing a step; CONTRIBUTING.md shows the plan."""
