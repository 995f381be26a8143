"""Examining uploaded pictures: `pool.Decoder` turns one staged file into its properties, or a refusal with a reason.

`outcomes` defines the results, `pool` runs the child processes and their limits. Inside a child: `decoder` reads
requests, `examine` handles one of them, with `file_formats` (which format, and whether it holds more than pixels).
`contracts.pixels` makes the pixels upright and sRGB, as wherever pictures are read. Nothing here depends on data sets,
events or blobs.
"""
