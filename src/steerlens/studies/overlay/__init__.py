"""The overlay study: heads are ablated in the order in which a lens sees an overlay."""
