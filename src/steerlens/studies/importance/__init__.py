"""The importance study: does a lens say what ablating a head does?"""
