"""The demo world: a picture is a function of a scene and a seed, and a scene provides its caption and its tags.

`scenes`: scenes and their words · `drawing`: rendering · `concepts`: creatures reserved for LoRAs, which the base never
saw · `withheld`: what training never shows, and the evaluation prompts · `scoring`: classifies what a picture shows.
Needs numpy and Pillow, no torch.
"""
