"""From finished runs to a submission.

Read inference, members, calibration, blending, person_groups, voting, expected_score, leaks, self_training,
pack, predict, export.
"""
