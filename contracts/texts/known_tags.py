"""Words by which a list is recognised as tags: usual booru tags, and nouns that usual tags end with. Data.

A word that is also a name of people (rose, ruby, 空) or a title (king) is left out: a list of names is no list of tags.
"""

MARKERS = frozenset(
    """
    solo no_humans solo_focus multiple_girls multiple_boys multiple_others male_focus looking_at_viewer masterpiece
    best_quality amazing_quality great_quality good_quality high_quality normal_quality low_quality bad_quality
    worst_quality highres absurdres incredibly_absurdres lowres newest very_aesthetic very_awa ultra-detailed
    jpeg_artifacts nsfw sfw commentary_request translation_request official_art virtual_youtuber game_cg
    """.split()
)
"""Tags that hardly any sentence consists of."""

NAMESPACES = frozenset(
    """
    artist character char copyright series general meta species lore rating score source quality year contributor
    invalid
    """.split()
)
"""Categories in front of a colon: `artist:name`, `rating:safe`."""

FACES = frozenset(
    r"""
    :3 :d :o :p :q :t :> :< :| :/ :( :) :c :x xd :s :i :v ;) ;d ;o ;p ;q ;3 ;( =) =d =3 d: c: x3 x) :'( >:) >:( ^o^
    ! !! !? ? ?? ?! ... ^^^ +++ \m/ \o/ \n/ \||/ <3 (^o^)/ \(^o^)/ ;_; t_t v_v n_n -_- o3o owo uwu qwq ^^ >:3 >:d
    :3c -> <-
    """.split()
)
"""Faces and signs that are tags, besides `contracts.texts.writing.KAOMOJI`."""

TAGS = frozenset(
    """
    smile smiling blush open_mouth closed_mouth closed_eyes parted_lips simple_background sitting
    lying kneeling walking running jumping flying sleeping crying squatting leaning_forward
    from_above from_behind from_below from_side upper_body lower_body full_body cowboy_shot portrait
    close-up profile indoors outdoors day night sunset sunrise holding monochrome greyscale
    grayscale sketch lineart chibi comic 4koma 3d 2d pov hdr 4k 8k signature watermark artist_name
    dated looking_back looking_away looking_to_the_side looking_up looking_down looking_at_another
    barefoot nude topless sweat tears fang fangs makeup lipstick freckles cleavage navel collarbone
    midriff thighs breasts ponytail twintails braid bangs ahoge sidelocks blunt_bangs anthro feral
    canine canid canis feline felid mammal avian scalie reptile equine equid male female male/male
    female/female male/female ambiguous_gender hi_res digital_media_(artwork) fur furry pokemon duo
    trio group fox wolf bear bird fish hills snow snowing rain hood crown sun creature small big
    left right middle surprised striped spotted happy sad angry serious expressionless
    depth_of_field blurry bokeh photorealistic realistic anime photo photorealism cinematic_lighting
    soft_lighting dramatic_lighting film_grain selfie black_and_white still_life nature landscape
    cityscape scenery arms_up crossed_arms hand_on_own_hip hand_up hands_up head_tilt one_eye_closed
    tongue_out tongue teeth grin frown pout smirk nose_blush light_smile animal_focus
    wearing_glasses detailed hetero yuri yaoi cosplay parody serafuku sleeveless strapless shiny
    plaid gradient see-through dutch_angle traditional_media heterochromia hug maid military
    magical_girl arm_up arm_support embarrassed wet eating drinking reading dancing fighting glowing
    two_side_up one_side_up mole muscular bound formal siblings blood obi v 笑顔 制服 屋外 室内 全身 上半身 女の子
    男の子 少女 少年 眼鏡 水着 一人 猫耳 微笑 单人 單人 女孩 男孩 一个女孩 一個女孩 户外 室外
    白色背景 简单背景 看着观众 미소 교복 안경 실외 실내 한_명의_소녀
    улыбка очки на_улице
    """.split()
)
"""Further usual tags, whole; some are surnames, and so no nouns below (`anna wolf`)."""

NOUNS = frozenset(
    """
    hair eye ear tail horn wing skin face lip mouth hand arm leg foot feet finger nail shoulder back chest breast
    thigh neck tooth beard mustache muscle dress shirt t-shirt blouse sweater hoodie jacket coat skirt pants jeans
    shorts shoe boot sneaker sandal sock thighhigh pantyhose glove hat cap helmet ribbon bow bowtie necktie scarf
    cape apron kimono uniform swimsuit bikini armor armour belt bag backpack necklace earring bracelet choker collar
    sleeve glasses sunglasses hairband headband hairclip mask underwear bra panties suit tie outfit clothes clothing
    costume background sky cloud water ocean beach grass tree forest mountain moon star light lighting shadow flower
    leaf leaves petal plant fruit food cup mug bottle plate table chair sofa couch bed pillow window floor room
    kitchen house building city road bridge car bicycle train ship boat book phone camera sword gun weapon shield
    staff spear umbrella cat dog horse rabbit animal mouse dragon robot mecha wave fire smoke heart halo tattoo scar
    piercing focus shot view pose style artwork theme text border frame sparkle teddy doll toy ball box lamp candle
    laptop computer guitar piano smile expression quality art illustration painting drawing photo photography
    ornament jewelry footwear headwear bun braid ponytail twintail eyebrow pupil eyelash bubble polish heel lift
    trim cuff headdress headgear print strap cutout wear top female male username frill bodysuit leotard vest sash
    miniskirt eyepatch headphone beret bandage chain button turtleneck capelet stomach toe armpit bang sweatdrop
    fingernail kneehigh neckerchief waist hip sunlight lantern feather
    """.split()
)
"""Last words of usual tags, in the singular: `red dress`, `animal ears`."""

MODIFIERS = frozenset(
    """
    red blue green yellow orange purple pink brown black white grey gray silver blonde blond aqua teal golden
    gradient multicolored colored dark bright light long short very medium large big small huge tall open closed
    messy curly straight wavy simple blurry striped spotted plaid floral school animal hair looking at viewer full
    upper body best high soft natural wide close up sleeveless frilled off one two pointy round no own cat dog
    """.split()
)
"""Words in front of those nouns, for entries in which a capital letter could mean a name: `Long Hair`."""

EAST_ASIAN_ENDINGS = tuple(
    """
    い髪 髪色 金髪 黒髪 銀髪 茶髪 白髪 赤髪 の髪 い目 の目 い瞳 の瞳 ドレス スカート シャツ リボン
    帽子 背景 の服 セーラー服 ツインテール ポニーテール ショートヘア
    ロングヘア 色头发 色頭髮 长发 短发 長髮 短髮 金发 黑发 白发 眼睛 连衣裙 裙子 衬衫 머리 눈동자
    드레스 치마 배경 волосы глаза платье
    """.split()
)
"""Endings of usual tags in scripts without spaces or with other words."""
