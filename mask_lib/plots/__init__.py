"""Charts and galleries: style, galleries, data_plots, curve_plots, score_plots, search_plots, photo_page."""
