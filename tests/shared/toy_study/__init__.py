"""A fifth study, small but complete: does the embedding of a picture survive a change of its brightness?

A new study is such a folder and a line in `STUDIES`.
"""

from toy_study.study import BrightnessStudy

__all__ = ["BrightnessStudy"]
