"""The identification study: which picture did a head's steered picture come from?"""
