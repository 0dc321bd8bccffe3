"""The importance study: does a head's picture show the effect of ablating that head?"""
