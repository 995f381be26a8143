"""The demo world: a picture is a function of a scene and a seed, and the scene says its caption and its tags.

`scenes` what there is to see, and its words · `drawing` the picture · `concepts` creatures kept from the base, for
LoRAs to learn · `withheld` what training never shows, and the prompts that ask for it · `scoring` what a picture shows.
Needs numpy and Pillow, no torch.
"""
