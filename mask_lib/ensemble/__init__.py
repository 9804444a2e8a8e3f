"""From finished runs to a submission.

Read inference, members, calibration, blending, voting, expected_score, leaks, self_training.
"""
