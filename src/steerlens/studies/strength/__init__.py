"""The strength study: how hard to steer?"""
