"""`python -m mask_lib.sample FOLDER` paints a sample set; `--help` says more."""

from mask_lib.sample import paint

if __name__ == "__main__":
    raise SystemExit(paint.main())
