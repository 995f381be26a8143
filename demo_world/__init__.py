"""The demo world: drawn pictures, their scores, and the small models of Loratory's own. Nothing is downloaded.

A picture is a function of a scene and a seed, and a scene provides its caption and its tags.
`scenes`: scenes and their words · `drawing`: rendering · `concepts`: creatures reserved for LoRAs, which the base never
saw · `withheld`: what training never shows, and the evaluation prompts · `scoring`: classifies what a picture shows.
`pictures` and `contact_sheet` are the programs of `loratory demo`. All of these need numpy and Pillow, no torch.

`models` makes and evaluates the models (with torch). Finished ones are data, one folder each, in `bases` and `taggers`:
trainer and tagger find them by name (`contracts.shipped_models`) and import nothing of this package.
"""
