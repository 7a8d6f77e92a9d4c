"""What to read aloud while recording a voice: short texts of our own that go through each language's sounds."""

LANGUAGES = {
    "en": "English",
    "de": "Deutsch",
    "fr": "Français",
    "es": "Español",
    "it": "Italiano",
    "nl": "Nederlands",
}

PROMPTS: dict[str, tuple[str, ...]] = {
    "en": (
        "Before the sun was up, Joyce had fetched the boat and thrown her heavy ropes ashore. Who else would "
        "choose to row through fog this thick?",
        "My uncle measures flour by eye, hums a tune, and bakes six loaves of rye bread. The whole village "
        "smells of it by half past eight.",
        "Why should a quiet young fox be afraid of thunder? She curls up under the bridge, shuts her eyes, "
        "and pictures warm summer evenings.",
        "Usually the choir sings louder than the organ. Yesterday, though, nothing could be heard but rain, "
        "wind, and one very cheerful bird.",
        "Take the third path on the left, past the old mill and the orange gate. There you will find a pool "
        "so clear that you can count the stones.",
    ),
    "de": (
        "Früh am Morgen zog Jürgen seine schweren Stiefel an, pfiff dem Hund und ging über die feuchte Wiese "
        "zum Fluss hinunter.",
        "Meine Großmutter kocht jeden Freitag eine scharfe Kürbissuppe. Schon im Treppenhaus riecht man "
        "Ingwer, Zwiebeln und frisches Brot.",
        "Warum fürchtet sich ein kleiner Fuchs vor dem Gewitter? Er hört es krachen, springt unter die Brücke "
        "und wartet, bis es vorüber ist.",
        "Zwölf Leute passen bequem in das gelbe Boot, aber heute möchten achtzehn mitfahren. Das wird eng, "
        "doch keiner schimpft.",
        "Folgen Sie dem schmalen Weg bis zur alten Mühle, dann links. Dort liegt ein Teich, so klar, dass man "
        "jeden Kieselstein zählen kann.",
    ),
    "fr": (
        "Bien avant l’aube, Agnès a poussé la barque sur l’eau grise. Qui d’autre oserait ramer dans un "
        "brouillard aussi épais ?",
        "Mon oncle mesure la farine à l’œil, fredonne une chanson et cuit huit pains de seigle. Toute la rue "
        "sent bon avant neuf heures.",
        "Pourquoi un jeune renard craindrait-il l’orage ? Il se couche sous le pont, ferme les yeux et songe "
        "à un grand champ de juin.",
        "D’habitude, le chœur chante plus fort que l’orgue. Hier, pourtant, on n’entendait que la pluie, le "
        "vent et un oiseau joyeux.",
        "Prenez le chemin de gauche, après le moulin et le portail orange. Vous verrez un étang si clair "
        "qu’on y compte les cailloux.",
    ),
    "es": (
        "Antes de que saliera el sol, Julia empujó la barca hacia el agua gris. ¿Quién más querría remar con "
        "una niebla tan espesa?",
        "Mi tío mide la harina a ojo, canta bajito y hornea seis panes de centeno. Hacia las ocho, toda la "
        "calle huele a gloria.",
        "¿Por qué teme un zorro joven a los truenos? Se encoge debajo del puente, cierra los ojos y sueña con "
        "las noches de verano.",
        "Casi siempre el coro suena más fuerte que el órgano. Ayer, en cambio, solo se oían la lluvia, el "
        "viento y un pájaro alegre.",
        "Siga el tercer camino a la izquierda, pasado el viejo molino. Allí hallará un lago tan claro que se "
        "pueden contar las piedras.",
    ),
    "it": (
        "Prima che sorgesse il sole, Giulia spinse la barca nell’acqua grigia. Chi altro vorrebbe remare in "
        "una nebbia così fitta?",
        "Mio zio misura la farina a occhio, canticchia e sforna sei pagnotte di segale. Alle otto tutta la "
        "via profuma di buono.",
        "Perché una giovane volpe dovrebbe temere il tuono? Si rannicchia sotto il ponte, chiude gli occhi e "
        "sogna le sere d’estate.",
        "Di solito il coro canta più forte dell’organo. Ieri, invece, si sentivano soltanto la pioggia, il "
        "vento e un uccello allegro.",
        "Prenda il terzo sentiero a sinistra, oltre il vecchio mulino. Troverà uno stagno così limpido che si "
        "contano i ciottoli sul fondo.",
    ),
    "nl": (
        "Nog voor de zon opkwam duwde Joris zijn boot het grijze water in. Wie anders zou er door zulke dikke "
        "mist willen roeien?",
        "Mijn oom meet het meel op het oog, neuriet een wijsje en bakt zes roggebroden. Tegen achten ruikt de "
        "hele straat ernaar.",
        "Waarom zou een jonge vos bang zijn voor onweer? Hij kruipt onder de brug, sluit zijn ogen en droomt "
        "van warme zomeravonden.",
        "Meestal zingt het koor luider dan het orgel. Gisteren hoorde je echter alleen de regen, de wind en "
        "één heel vrolijke vogel.",
        "Neem het derde pad links, voorbij de oude molen en het oranje hek. Daar ligt een vijver zo helder "
        "dat je de keien kunt tellen.",
    ),
}

SING = (
    "Sing a verse of any song you know by heart, without accompaniment, as you would sing it to a friend.",
    "Sing the same verse again, a little higher or lower.",
    "Sing long, easy notes on “ah”, “ee” and “oo”: first low, then in the middle, then high.",
    "Sing something quick with many words, softly at first and then with full voice.",
)
