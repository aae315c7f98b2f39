"""Words of clipart titles: translations of the Italian and French ones, and English nouns that the emoji packages do
not use."""

from __future__ import annotations

from .lexicon import word_set

__all__ = ["ENGLISH", "MISLEADING", "REJECTED", "TRANSLATIONS"]

_PAIRS = """
abeille bee|acquila eagle|aglio garlic|albero tree|ambulanza ambulance|anatra duck|antilope antelope
aquila eagle|arancione orange|arbre tree|bambina girl|bianca white|bianchi white|bianco white
bicicletta bicycle|birra beer|bluewhale blue whale|borsa bag|bottiglia bottle|bussola compass
cacciavite screwdriver|caffe coffee|calamita magnet|camicia shirt|cammello camel|candela candle|cane dog
canguro kangaroo|cani dogs|cappello hat|casa house|cavalletta grasshopper|cavallo horse|chiave key|cigni swans
cigno swan|civetta owl|clessidra hourglass|coccinella ladybug|coccinelle ladybugs|coniglio rabbit
cronometro stopwatch|dino dinosaur|dinosauri dinosaurs|dinosauro dinosaur|donna woman|dottore doctor
elefante elephant|elefantone elephant|fabbrica factory|farfalla butterfly|farfalle butterflies|fata fairy
fatina fairy|finestra window|fiore flower|fiori flowers|foglie leaves|forbici scissors|gabbiano seagull
gallina hen|gallo rooster|gatti cats|gattina kitten|gatto cat|gelato ice cream|ghiaccio ice|glace ice cream
grattacieli skyscrapers|grigia gray|grigio gray|guanti gloves|gufo owl|lampada lamp|leone lion
libellula dragonfly|libellule dragonfly|libro book|lucchetto padlock|lucertola lizard|lucertolone lizard
lumaca snail|mela apple|microfono microphone|microscopio microscope|miele honey|montagna mountain
moschito mosquito|mostriciattolo monster|mucca cow|mucche cows|natale christmas|nera black|nero black
neve snow|nonno grandpa|orso bear|ours bear|padella pan|palloncini balloons|pannocchia corn cob|papera duck
pasteque watermelon|pecora sheep|pecorella sheep|pennello brush|peperoncino chili pepper|pera pear|pesca peach
pescetto fish|piedi feet|pinguino penguin|pollo chicken|poltrona armchair|pomodori tomatoes
principessa princess|prugna plum|prune plum|ragazza girl|ragazzo boy|ragnetto spider|ragno spider|rana frog
ravanello radish|regalo gift|rosa rose|rossa red|rosso red|sapone soap|scala ladder|secchio bucket|sedia chair
sega saw|signorina young woman|siringa syringe|sole sun|spaventapasseri scarecrow|spugna sponge
struzzo ostrich|tacchino turkey|tavolo table|tazza cup|teiera teapot|telefono telephone|televisore television
tigre tiger|tigri tigers|topo mouse|toro bull|torta cake|trattore tractor|tux penguin|uccelli birds
uccello bird|uomo man|uovo egg|vacca cow|valigie suitcases|verde green|vino wine|zanzara mosquito
zucca pumpkin|baloon balloon|ballon balloon|ballons balloons|baloons balloons|teddybear teddy bear
lightbulb light bulb|palmtree palm tree|sportcar sports car|redcar red car|icecube ice cube
meatgrinder meat grinder|africandrum african drum|beachball beach ball|tophat top hat|hearth heart
burgers burgers|magnifing magnifying|fireman firefighter|cellular cell|tft screen|lcd screen
paperbag paper bag|corndog corn dog|coffe coffee|cacuts cactus|lotas lotus|blowling bowling
silhouet silhouette|celebirty celebrity|home house|floppy floppy disk|autos car|sakura cherry blossom
xmas christmas|gumnut gum nut|volley volleyball|softdrink soft drink|handphone mobile phone|ambulans ambulance
vavuum vacuum|couronne crown|medicina medicine|pillole pills|televisione television|cestino basket
pallone ball|calcolatrice calculator|lettera letter
"""
#: Word -> English words.
TRANSLATIONS: dict[str, str] = {
    word: english for pair in _PAIRS.replace("\n", "|").split("|") if pair for word, english in [pair.split(" ", 1)]
}

#: English nouns and adjectives of titles beyond the vocabulary of the emoji packages.
ENGLISH = word_set(
    """
    aircraft angelfish antelope apples armadillo armchair baboon backpacker basket beagle bean beige binoculars
    blueberry bookshelf bowling bulldog cello cheetah cherries chestnut cleaner cob cormorant crawfish cube
    daffodil dinosaur dragonfly drill driver drum earring eraser fawn fedora flask flowers fries geranium
    gramophone grasshopper grinder gull habanero hen hiker hopper hummer insect jukebox katana keyring kitten
    labrador lasagna leash lighter lighthouse longsword lotus magnolia magnifying marshmallow microphone mitten
    modem monster muffin muffins mushrooms nunchaku nut oboe palm paprika penguin platter plum propeller puffin
    radish retriever sailor scanner scarecrow scoop scrub seagull seahorse sedan server skyscrapers slice
    sombrero storm surfboard suitcases surfer swan swans syringe tank thumbtack toothpaste tractor trowel vacuum
    vanilla vinyl wasp webcam wooden wreath xylophone rubber pumpkin banjo tuba cactus pear pears lemon dolphin
    shark pirate firefighter ladybug ladybugs sports young woman half whole sliced baked fried grilled bunch
    bottled candied stopwatch moose bison goose parrot pigeon dove owl eagle falcon hawk hamster turtle tortoise
    snail squid octopus lobster ladder padlock screwdriver screw bolt nut hammer pliers wrench shovel rake axe
    saw broom mop bucket sponge brush roller paint chair table sofa bed desk lamp candle clock watch vase plate
    bowl cup mug glass fork knife spoon pot pan kettle teapot pitcher jug jar bottle barrel crate box bag
    trumpet pocket acoustic dulcimer harp flute drums airbrush dartboard helmet glove
    """
)

#: Words the emoji packages know, but which are other words, names or no help in these titles.
MISLEADING = word_set(
    """
    what you done have come from for with's can could will ours piccolo access network user users update one two
    three four five six seven eight ten gray's top bottom left right lower upper horizontal vertical under
    number part set open theme symbol symbols icon icons sign print rules lines day body experience style side
    switch straight corner flat soft creation menu port ports line close drive view point points random target
    net fashion disco post trip load future movie metro media question needs bad mad lit big old out bags away
    dead sexy thong thongs stripper panties gun pistol bomb bust serve record cross christian bible church war
    virus wet splatter break done military sad team scene steps evolution scale rain smoke person people male
    female man gps internet student munch dream human dance video adult reminder slate ape air school clean
    crystal labels golf road italian ride moons kings queens footprints park reading sailing tower papers eyes
    stones sport gender photo crazy fancy whole home hole head clothing screen film fly access fan rom disk
    desktop controller electronic wireless spring help compact navigation formula architectural trefoil family
    couple queen king card jack joker alpha xray empty tomb coat bug
    """
)

#: Files looked at and found unfit: the title is another picture's, or the thing is one of several shown.
REJECTED = word_set(
    """
    houses_jon_phillips_01 wrench_jarno_vasamaa_01 bread_and_wine_mark_near_ bread_mateya_01 pasta_mateya_01
    cheese_mateya_01 cake_mateya_01 apple_mateya_01 egg_mateya_01 paprika_mateya_01 a_boy_plays_soccer_01
    happy_boy_01 grandpa_01 lightning_jon_phillips_01 lightning_jon_phillips_02 lightning_jon_phillips_03
    lightning_jon_phillips_04 lightning_jon_phillips_05 lightning_jon_phillips_06 lightning_jon_phillips_07
    lightning_jon_phillips_08 lightning_jon_phillips_09 lightning_jon_phillips_10 lightning_jon_phillips_11
    a_happy_boy_01
    """
)
