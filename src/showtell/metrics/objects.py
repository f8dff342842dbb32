"""Objects that captions invent: the caption names them, but nobody who described the photo does.

In the manner of CHAIR (Rohrbach et al. 2018, "Object Hallucination in Image Captioning") over COCO's 80 kinds of
objects and people's words for them. CHAIR takes the objects in a photo from COCO's outlines and from people's captions;
here they come from the captions alone, so that it works for any data set. With few captions per photo, objects that
nobody mentioned count as invented: compare systems on the same photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

# Each line: the object, then other words for it, singular. A word of two objects belongs to the first one.
OBJECTS = """
person: man, woman, boy, girl, child, kid, baby, infant, toddler, guy, gentleman, lady, adult, human, people, crowd,
    couple, family, player, batter, pitcher, catcher, umpire, referee, athlete, skier, snowboarder, skateboarder,
    surfer, swimmer, rider, cyclist, biker, motorcyclist, jockey, cowboy, driver, pedestrian, passenger, worker, chef,
    cook, waiter, waitress, officer, policeman, police officer, soldier, fireman, firefighter, farmer, vendor, bride,
    groom, student, teacher, friend, mother, father, mom, dad, son, daughter, brother, sister, husband, wife,
    grandmother, grandfather, teenager, youth, someone, somebody, tourist, shopper, spectator, fan, audience, dancer,
    musician, singer, runner, hiker, climber, fisherman, businessman, performer, customer, male, female, men, women,
    children
bicycle: bike, tricycle
car: automobile, sedan, taxi, cab, suv, minivan, jeep, van, police car, convertible
motorcycle: motorbike, motor bike, scooter, moped, motor scooter, dirt bike
airplane: plane, aircraft, jet, jetliner, airliner, aeroplane, biplane
bus: minibus, double decker
train: locomotive, tram, trolley, streetcar, subway
truck: pickup, lorry, fire truck, firetruck, semi, tractor trailer
boat: ship, sailboat, ferry, canoe, kayak, yacht, raft, rowboat, motorboat, speedboat, gondola
traffic light: stoplight, stop light, traffic signal, street light
fire hydrant: hydrant
stop sign:
parking meter: meter
bench: pew
bird: duck, goose, swan, seagull, gull, pigeon, parrot, owl, eagle, hawk, chicken, rooster, hen, ostrich, peacock,
    penguin, flamingo, sparrow, crow, turkey, pelican, crane, stork, heron, geese
cat: kitten, kitty, tabby
dog: puppy, pup, hound, poodle, terrier, retriever, greyhound, collie, labrador, dachshund, bulldog, pug, beagle,
    husky, corgi, dalmatian, chihuahua
horse: pony, foal, stallion, mare, colt
sheep: lamb, ram, ewe
cow: cattle, bull, calf, ox, oxen, steer, calves
elephant:
bear: polar bear, grizzly, cub
zebra:
giraffe:
backpack: knapsack, rucksack, back pack
umbrella: parasol
handbag: purse, pocketbook
tie: necktie, bowtie, bow tie
suitcase: luggage, briefcase, suit case
frisbee:
skis: ski
snowboard:
sports ball: ball, baseball, basketball, football, soccer ball, tennis ball, volleyball
kite:
baseball bat: bat
baseball glove: glove, mitt
skateboard: skate board
surfboard: surf board, boogie board
tennis racket: racket, racquet
bottle:
wine glass: wineglass, goblet
cup: mug, teacup
fork:
knife: knives
spoon:
bowl:
banana:
apple:
sandwich: burger, hamburger, cheeseburger, sub, panini
orange: tangerine, clementine
broccoli:
carrot:
hot dog: hotdog, corn dog
pizza:
donut: doughnut
cake: cupcake, cheesecake
chair: armchair, stool, recliner, seat
couch: sofa, loveseat, love seat, futon
potted plant: houseplant, house plant, flower pot
bed: bunk
dining table: table, desk
toilet: urinal, commode
tv: television, television set, tv set
laptop: notebook computer, laptop computer
mouse: computer mouse
remote: remote control, controller, wii remote
keyboard:
cell phone: cellphone, phone, smartphone, smart phone, telephone, mobile phone
microwave: microwave oven
oven: stove, stovetop, stove top
toaster:
sink:
refrigerator: fridge, freezer
book:
clock:
vase:
scissors:
teddy bear: teddy, stuffed bear, stuffed animal
hair drier: hair dryer, hairdryer, blow dryer
toothbrush: tooth brush
"""
# Phrases in which a word from above is not that object; and young animals, which are not a "baby".
OTHERS = """
hot dog bun, dog house, doghouse, cat fish, train track, train station, train platform, bus stop, bus station,
truck stop, boat house, bear market, home plate, horse back, horseback, toilet paper, toilet seat, car seat, bed room,
baseball field, baseball game, baseball player, football field, football game, football player, basketball court,
basketball player, basketball game, soccer game, soccer player, tennis player, orange juice, orange shirt,
orange jacket, orange vest, orange life, table cloth, pizza box, phone booth, street light pole, wine bottle cork,
baby elephant, baby zebra, baby giraffe, baby cow, baby bear, baby horse, baby sheep, baby bird, baby goat, baby duck,
snow man, snowman, fire man
"""
PERSON, DOG = "person", "dog"
LONGEST = 3  # words of a name


@dataclass(frozen=True)
class Invented:
    """How often captions name what is not there; shares, 0 to 1, None where there is nothing to count."""

    captions: float
    """Captions that invent an object: CHAIR_s."""
    objects: float | None
    """Named objects that are invented: CHAIR_i."""
    person: float | None
    """Of the photos in which nobody mentions a person, those whose caption names one."""
    dog: float | None
    """The same for dogs."""


def invented(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Invented:
    """Count over tokenised captions `[B]` and the tokenised references of each photo."""
    named = [objects_in(caption) for caption in candidates]
    seen = [frozenset[str]().union(*map(objects_in, of_image)) for of_image in references]
    wrong = [said - there for said, there in zip(named, seen, strict=True)]

    def rate(kind: str) -> float | None:
        without = [said for said, there in zip(named, seen, strict=True) if kind not in there]
        return sum(kind in said for said in without) / len(without) if without else None

    count = sum(map(len, named))
    return Invented(
        captions=sum(map(bool, wrong)) / max(1, len(wrong)),
        objects=sum(map(len, wrong)) / count if count else None,
        person=rate(PERSON),
        dog=rate(DOG),
    )


def objects_in(caption: str) -> frozenset[str]:
    """COCO's objects that a tokenised caption names; among overlapping names the longest counts."""
    names = _names()
    words = caption.split(" ")
    found = set()
    place = 0
    while place < len(words):
        for length in range(LONGEST, 0, -1):
            phrase = " ".join(words[place : place + length])
            if phrase in names:
                found.add(names[phrase])
                place += length
                break
        else:
            place += 1
    return frozenset(found - {""})


@cache
def _names() -> dict[str, str]:
    """What an object is called, in singular and plural -> the object; "" for phrases that name none."""
    names = dict[str, str]()
    for line in OBJECTS.replace("\n    ", " ").strip().splitlines():
        kind, words = line.split(":")
        for word in (kind, *filter(None, map(str.strip, words.split(",")))):
            for form in (word, _plural(word)):
                names.setdefault(form, kind)
    for phrase in OTHERS.replace("\n", " ").split(","):
        young = phrase.strip().removeprefix("baby ")
        for form in (phrase.strip(), _plural(phrase.strip())):
            names[form] = names.get(young, "") if "baby" in phrase else ""
    return names


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"
