"""A picture's way in: `pool.Decoder` turns one staged file into facts, or into a reason why not.

`outcomes` holds the words, `pool` the children and their limits. Inside a child: `decoder` reads requests, `examine`
does one of them, with `containers` (what kind of file, and does it carry more than pixels?) and `upright` (pixels as
one sees them). Nothing here knows data sets, events or blobs.
"""
