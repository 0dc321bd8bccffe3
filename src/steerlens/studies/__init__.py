"""Studies: experiments that ask, by intervention, whether the lenses' pictures tell the truth."""
