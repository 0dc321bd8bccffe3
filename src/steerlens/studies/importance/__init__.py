"""The importance study: does a head's picture say what ablating that head does?"""
