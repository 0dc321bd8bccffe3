"""The study of candidate lenses: which way of showing a head says best what ablating it does to any name?"""
