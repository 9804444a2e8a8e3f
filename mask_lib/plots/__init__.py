"""Charts and galleries: style, galleries, data_plots, curve_plots, score_plots, ensemble_plots, search_plots.

Charts take axes, or make them, and return them; nothing here computes a result or writes a file.
"""
