"""The commands of `pixzip`: a module each, above what they share.

    compress  pack      decompress  salvage   info  verify  models  draw (sample, complete)  freeze
    learning                                  train, evaluate
    written   trees     manifest              .pxz files checked as they are written; -r; --manifest
    each      outputs                         the work on every file; where its results go
    options   arguments progress              settings; files named; bars and signals

compress imports pack, decompress salvage; otherwise a module imports from the lines below its own only. `bench` stands
beside what it runs, in pixzip/benchmark. pixzip/cli.py puts all of them together.
"""
