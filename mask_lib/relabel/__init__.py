"""Wrong labels, found and decided on.

Read suspects, probabilities, decision_log, corrections, keys, photo_queue, session, widget.
"""
