"""Wrong labels, found and decided on.

Read keys, suspects, probabilities, decision_log, corrections, photo_queue, session, widget.
"""
