"""Makes and evaluates the models that come with Loratory: the demo base, the demo tagger and the tiny-random tagger."""
