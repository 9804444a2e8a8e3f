"""Wrong labels, found and decided on.

Read keys, suspects, probabilities, current_decisions, decision_log, corrections, photo_queue, photo_states, session,
widget.
"""
