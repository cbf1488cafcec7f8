"""The commands of `pixzip`: a module each, above what they share.

    compress  pack      decompress  salvage   info  verify  models  draw (sample, complete)  learning (train, evaluate)
    written   trees     manifest              .pxz files checked as they are written; -r; --manifest
    each      outputs                         the work on every file; where its results go
    options   arguments progress              settings; files named; bars and signals

compress imports pack, decompress salvage; otherwise a module imports from the lines below its own only. `bench` and
`freeze` stand beside what they run, in pixzip/benchmark and pixzip/training. pixzip/cli.py puts all of them together.
"""
