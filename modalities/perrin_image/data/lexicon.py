"""The hand-written word lists of the captions: what is a kind of what, what is called what, and what is not worth
saying.

Everything else comes from the packages' own labels and keywords.
"""

from __future__ import annotations

__all__ = ["DROP_SUBGROUPS", "HEADLESS", "HEADS", "KINDS", "MASS", "NEVER", "PICTOGRAM_NAMES", "THINGS", "word_set"]


def word_set(text: str) -> frozenset[str]:
    """The words of a text that is kept as running text because it is read and edited as one."""
    return frozenset(text.split())


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
MASS = word_set(
    """
    bacon rice bread broccoli garlic ginger milk sake honey salt butter cheese fire snow rain fog lightning
    water music paper money mail clothing wood rock soap ice popcorn sushi tempura spaghetti ramen food fur hair
    wind weather luggage sun tea coffee tobacco christmas easter halloween dna yarn thread medicine lacrosse
    baseball basketball volleyball rugby tennis golf skiing hockey badminton football japan liberty ketchup
    fries meat chocolate corn wheat sugar sand coral grass bamboo jewelry makeup lipstick deaf ok
    """
)

#: Last words that may stand for the whole name: "alarm clock" is a clock, while "high voltage" is no voltage.
HEADS = word_set(
    """
    tree clock moon bag hat cap boat ship train truck bus car book shoe boot shirt leaf flower bird cat dog
    horse fish bell lamp light phone computer house building bottle glass cup bowl box knife pen pencil brush
    camera key lock ring cake bread soup salad pie cookie cheese candy umbrella envelope mailbox folder chair
    door window guitar drum star cloud heart snake bear monkey mouse rabbit chicken whale dolphin crab shrimp
    butterfly spider ant pepper potato onion apple melon pear peach disk battery hammer axe sword shield bomb
    scroll candle basket bucket broom pot hospital church castle mountain bridge card chart telephone television
    airplane helicopter balloon calendar notebook newspaper medal ball racket mask dress sandal scarf plug bulb
    clip pin globe fan trash suitcase truck taxi ambulance rooster camel pig cow boar ox buffalo elephant panda
    penguin owl turtle dragon worm lizard bottle milk beans noodles
    """
)

#: Names whose last word is one of HEADS and yet no shorter name of the thing.
HEADLESS = frozenset(
    {
        *("hot dog", "oil drum", "tram car", "railway car", "police car light", "rice ball", "low battery"),
        "carousel horse",
    }
)

#: Words that never enter a caption.
NEVER = word_set(
    """
    shit poo fuck middle sexy sexual penis vagina boobs tits ass butt dick bitch whore slut nazi porn nude naked
    gringo gypsy retard trademark copyright svg icon clipart emoji unicode hash hocho facepunch
    """
)

#: Names under which a picture shows left, right, letters, digits or a clock: it must not be mirrored.
PICTOGRAM_NAMES = word_set(
    """
    left right leftwards rightwards clockwise counterclockwise anticlockwise arrow arrows text letter letters
    digit number numbers clock flag flags sign button watch calendar book newspaper abc keyboard latin
    calculator clapper stop exit soon top back end on up! question percent dollar pound euro yen receipt chart
    id atm wc ruler compass input o'clock thirty dice west east northeast northwest southeast southwest
    """
)
