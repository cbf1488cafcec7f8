"""The trunk and its colour heads, executed: fast traversals in compiled code, and plain ones to compare them with."""
