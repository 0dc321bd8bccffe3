"""The overlay study: does ablating heads in a lens' order remove an overlay?"""
