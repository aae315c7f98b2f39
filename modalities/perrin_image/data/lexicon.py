"""The hand-written word lists of the captions: what is a kind of what, what is called what, and what is not worth saying.

Everything else comes from the packages' own labels and keywords.
"""

from __future__ import annotations

__all__ = ["DROP_SUBGROUPS", "HEADS", "KINDS", "MASS", "NEVER", "PICTOGRAM_NAMES", "SYNONYMS", "THINGS"]

#: Emojibase subgroups that are letters, digits or flags rather than pictures.
DROP_SUBGROUPS = frozenset({"keycap", "alphanum", "country-flag", "subdivision-flag", "skin-tone", "hair-style"})

#: Subgroup -> what every member of it is; only where that is true of all of them.
KINDS = {
    "animal-mammal": "animal",
    "animal-bird": "bird",
    "animal-amphibian": "animal",
    "animal-reptile": "reptile",
    "animal-marine": "sea animal",
    "animal-bug": "bug",
    "plant-flower": "flower",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "food",
    "food-asian": "food",
    "food-marine": "seafood",
    "food-sweet": "sweet food",
    "drink": "drink",
    "place-building": "building",
    "musical-instrument": "musical instrument",
    "clothing": "clothing",
    "tool": "tool",
    "heart": "heart",
    "cat-face": "cat face",
    "monkey-face": "monkey face",
    "book-paper": "paper",
    "science": "science",
    "sport": "sport",
    "sky-weather": "sky",
    "zodiac": "zodiac sign",
    "face-smiling": "smiley",
    "face-affection": "smiley",
    "face-tongue": "smiley",
    "face-hand": "smiley",
    "face-neutral-skeptical": "smiley",
    "face-sleepy": "smiley",
    "face-unwell": "smiley",
    "face-hat": "smiley",
    "face-glasses": "smiley",
    "face-concerned": "sad smiley",
    "face-negative": "angry smiley",
}

#: Emojibase subgroups of single things, whose names take an article.
THINGS = frozenset(
    {
        *("animal-mammal", "animal-bird", "animal-amphibian", "animal-reptile", "animal-marine", "animal-bug"),
        *("plant-flower", "plant-other", "food-fruit", "food-vegetable", "food-prepared", "food-asian", "food-marine"),
        *("food-sweet", "drink", "dishware", "place-map", "place-geographic", "place-building", "place-religious"),
        *(
            "place-other",
            "transport-ground",
            "transport-water",
            "transport-air",
            "hotel",
            "time",
            "sky-weather",
            "event",
        ),
        *("award-medal", "sport", "game", "arts-crafts", "clothing", "sound", "music", "musical-instrument", "phone"),
        *("computer", "light-video", "book-paper", "money", "mail", "writing", "office", "lock", "tool", "science"),
        *("medical", "household", "other-object", "heart", "body-parts", "person", "person-role", "person-fantasy"),
        *("face-costume", "cat-face", "monkey-face", "face-smiling", "face-affection", "face-tongue", "face-hand"),
        *("face-neutral-skeptical", "face-sleepy", "face-unwell", "face-hat", "face-glasses", "face-concerned"),
        *(
            "face-negative",
            "geometric",
            "emotion",
            "person-activity",
            "person-sport",
            "person-resting",
            "person-gesture",
        ),
        *("arrow", "av-symbol", "religion", "transport-sign", "warning", "punctuation", "hand-prop"),
    }
)

#: Last words that take no article.
MASS = frozenset(
    """bacon rice bread broccoli garlic ginger milk sake honey salt butter cheese fire snow rain fog lightning water music paper money mail
    clothing wood rock soap ice popcorn sushi tempura spaghetti ramen food fur hair wind weather luggage sun tea coffee tobacco christmas
    easter halloween dna yarn thread medicine lacrosse baseball basketball volleyball rugby tennis golf skiing hockey badminton football
    japan liberty ketchup fries meat chocolate corn wheat sugar sand coral grass bamboo jewelry makeup lipstick deaf ok""".split()
)

#: Last words that may stand for the whole name: "alarm clock" is a clock, while "high voltage" is no voltage.
HEADS = frozenset(
    """tree clock moon bag hat cap boat ship train truck bus car book shoe boot shirt leaf flower bird cat dog horse fish bell lamp light phone
    computer house building bottle glass cup bowl box knife pen pencil brush camera key lock ring cake bread soup salad pie cookie cheese
    candy umbrella envelope mailbox folder chair door window guitar drum star cloud heart snake bear monkey mouse rabbit chicken whale
    dolphin crab shrimp butterfly spider ant pepper potato onion apple melon pear peach disk battery hammer axe sword shield bomb scroll
    candle basket bucket broom pot hospital church castle mountain bridge card chart telephone television airplane helicopter balloon
    calendar notebook newspaper medal ball racket mask dress sandal scarf plug bulb clip pin globe fan trash suitcase truck taxi ambulance
    rooster camel pig cow boar ox buffalo elephant panda penguin owl turtle dragon worm lizard bottle milk beans noodles""".split()
)

#: Words that never enter a caption.
NEVER = frozenset(
    """shit poo fuck middle sexy sexual penis vagina boobs tits ass butt dick bitch whore slut nazi porn nude naked gringo gypsy retard
    trademark copyright svg icon clipart emoji unicode hash hocho facepunch""".split()
)

#: Label -> further names of the same thing; each must be true of every drawing of it.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "automobile": ("car",),
    "oncoming automobile": ("car from the front", "oncoming car"),
    "sport utility vehicle": ("suv", "jeep"),
    "pizza": ("slice of pizza", "pizza slice"),
    "evergreen tree": ("pine tree", "fir tree", "conifer"),
    "deciduous tree": ("tree", "leafy tree", "round tree"),
    "palm tree": ("palm",),
    "christmas tree": ("decorated christmas tree",),
    "house": ("house building", "home"),
    "house with garden": ("house with a tree", "house and garden"),
    "houses": ("old house",),
    "airplane": ("plane", "aeroplane"),
    "locomotive": ("steam locomotive", "steam train"),
    "train": ("train front",),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike",),
    "motor scooter": ("scooter", "moped"),
    "delivery truck": ("truck", "lorry"),
    "sailboat": ("sailing boat", "yacht"),
    "hamburger": ("burger",),
    "hot dog": ("hotdog",),
    "hot beverage": ("cup of coffee", "coffee cup"),
    "teacup without handle": ("cup of tea",),
    "beer mug": ("glass of beer", "beer"),
    "clinking beer mugs": ("two beer mugs",),
    "wine glass": ("glass of wine",),
    "cocktail glass": ("cocktail", "martini"),
    "glass of milk": ("milk",),
    "birthday cake": ("cake with candles", "cake"),
    "shortcake": ("slice of cake", "cake"),
    "soft ice cream": ("ice cream cone",),
    "cooking": ("fried egg in a pan",),
    "egg": ("an egg",),
    "mobile phone": ("smartphone", "cell phone"),
    "laptop": ("laptop computer", "notebook computer"),
    "desktop computer": ("computer monitor", "computer"),
    "television": ("tv", "tv set"),
    "camera": ("photo camera",),
    "light bulb": ("lightbulb", "lamp"),
    "wrapped gift": ("gift box", "present"),
    "red heart": ("heart", "love heart"),
    "beating heart": ("heart",),
    "soccer ball": ("football ball",),
    "high voltage": ("lightning bolt", "lightning"),
    "fire": ("flame",),
    "droplet": ("water drop", "drop of water"),
    "sun": ("shining sun",),
    "sun with face": ("smiling sun", "sun"),
    "crescent moon": ("moon",),
    "full moon": ("moon",),
    "star": ("yellow star", "gold star"),
    "glowing star": ("shining star",),
    "cloud": ("white cloud",),
    "umbrella": ("open umbrella",),
    "snowman": ("snowman with snow",),
    "snowman without snow": ("snowman",),
    "robot": ("robot face", "robot head"),
    "alien": ("alien face", "extraterrestrial"),
    "ghost": ("halloween ghost",),
    "jack-o-lantern": ("halloween pumpkin", "carved pumpkin"),
    "skull": ("human skull",),
    "rabbit face": ("bunny face", "bunny"),
    "rabbit": ("bunny",),
    "hatching chick": ("chick in an egg",),
    "baby chick": ("chick",),
    "lady beetle": ("ladybug", "ladybird"),
    "honeybee": ("bee",),
    "spouting whale": ("whale",),
    "tropical fish": ("fish",),
    "crab": ("a red crab",),
    "tulip": ("pink tulip flower",),
    "rose": ("red rose flower",),
    "sunflower": ("yellow flower",),
    "four leaf clover": ("lucky clover", "green clover"),
    "maple leaf": ("autumn leaf", "red leaf"),
    "tangerine": ("orange fruit", "mandarin"),
    "red apple": ("apple",),
    "green apple": ("apple",),
    "grapes": ("bunch of grapes",),
    "eggplant": ("aubergine",),
    "ear of corn": ("corn", "maize"),
    "french fries": ("fries", "chips"),
    "t-shirt": ("tshirt", "shirt"),
    "jeans": ("trousers", "pants"),
    "glasses": ("eyeglasses", "spectacles"),
    "running shoe": ("sneaker", "trainer"),
    "high-heeled shoe": ("high heel", "red shoe"),
    "top hat": ("hat",),
    "crown": ("royal crown", "gold crown"),
    "gem stone": ("diamond", "jewel"),
    "musical keyboard": ("piano keys", "piano"),
    "alarm clock": ("clock",),
    "watch": ("wristwatch",),
    "hourglass done": ("hourglass", "sand clock"),
    "closed book": ("book",),
    "open book": ("book",),
    "pencil": ("a yellow pencil",),
    "locked": ("padlock", "closed lock"),
    "unlocked": ("open padlock", "open lock"),
    "magnifying glass tilted left": ("magnifying glass",),
    "magnifying glass tilted right": ("magnifying glass",),
    "wrench": ("spanner",),
    "kitchen knife": ("knife",),
    "water pistol": ("toy gun", "water gun"),
    "video game": ("game controller", "gamepad"),
    "artist palette": ("paint palette",),
    "trophy": ("gold cup", "winner's cup"),
    "party popper": ("confetti",),
    "envelope": ("letter", "mail"),
    "pile of poo": ("poop",),
    "person": ("human",),
    "thumbs up": ("thumb up", "like"),
    "thumbs down": ("thumb down", "dislike"),
    "grinning face": ("smiling face", "happy face"),
    "slightly smiling face": ("smiling face", "smile"),
    "smiling face with smiling eyes": ("smiling face",),
    "crying face": ("sad face with a tear",),
    "loudly crying face": ("crying face",),
    "angry face": ("mad face",),
    "rolling on the floor laughing": ("laughing face",),
    "face with tears of joy": ("laughing face", "laughing with tears"),
    "smiling face with heart-eyes": ("face with heart eyes", "face in love"),
    "smiling face with sunglasses": ("cool face", "face with sunglasses"),
    "sleeping face": ("asleep face",),
    "thinking face": ("thoughtful face",),
    "face with medical mask": ("face with mask",),
    "smiling face with horns": ("purple devil", "smiling devil"),
    "fish cake with swirl": ("fish cake",),
    "curry rice": ("curry with rice",),
    "steaming bowl": ("noodle soup", "ramen bowl"),
    "globe showing europe-africa": ("earth", "planet earth", "globe"),
    "globe showing americas": ("earth", "planet earth", "globe"),
    "globe showing asia-australia": ("earth", "planet earth", "globe"),
    "ringed planet": ("saturn", "planet with rings"),
    "flying saucer": ("ufo",),
    "racing car": ("race car",),
    "fire engine": ("fire truck",),
    "tractor": ("farm tractor",),
    "volcano": ("erupting volcano",),
    "snow-capped mountain": ("mountain with snow", "mountain"),
    "water wave": ("ocean wave", "wave"),
    "rainbow": ("a colourful rainbow",),
    "balloon": ("red balloon",),
    "dog face": ("dog", "puppy face"),
    "cat face": ("cat", "kitten face"),
}

#: Names under which a picture shows left, right, letters, digits or a clock: it must not be mirrored.
PICTOGRAM_NAMES = frozenset(
    """left right leftwards rightwards clockwise counterclockwise anticlockwise arrow arrows text letter letters digit number numbers clock
    flag flags sign button watch calendar book newspaper abc keyboard latin calculator clapper stop exit soon top back end on up!
    question percent dollar pound euro yen receipt chart id atm wc ruler compass input o'clock thirty dice west east
    northeast northwest southeast southwest""".split()
)
