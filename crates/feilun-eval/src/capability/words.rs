//! The words that items are made of, in English and Chinese side by side.

use super::Language;

/// English, Chinese.
pub(super) type Word = (&'static str, &'static str);

impl Language {
    /// A word in this language.
    pub(super) fn word(self, word: Word) -> &'static str {
        match self {
            Language::English => word.0,
            Language::Chinese => word.1,
        }
    }

    /// The text in this language.
    pub(super) fn say(self, english: String, chinese: String) -> String {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }

    /// Words with commas between them.
    pub(super) fn list(self, words: &[&str]) -> String {
        words.join(self.word((", ", "、")))
    }

    /// Sentences one after the other.
    pub(super) fn text(self, sentences: &[String]) -> String {
        sentences.join(self.word((" ", "")))
    }
}

#[rustfmt::skip]
pub(super) const NAMES: &[Word] = &[
    ("Ada", "小明"), ("Ben", "小红"), ("Cleo", "小刚"), ("Dan", "小芳"), ("Eva", "小华"),
    ("Finn", "小强"), ("Gita", "小丽"), ("Hugo", "小军"), ("Ines", "小燕"), ("Jan", "小龙"),
    ("Kira", "阿杰"), ("Leo", "阿梅"), ("Mona", "阿宁"), ("Nils", "阿泰"), ("Olga", "阿云"),
    ("Paul", "阿虎"), ("Rosa", "阿春"), ("Sam", "阿秋"), ("Tara", "阿东"), ("Vera", "阿南"),
];

#[rustfmt::skip]
pub(super) const COLOURS: &[Word] = &[
    ("red", "红色"), ("blue", "蓝色"), ("green", "绿色"), ("yellow", "黄色"), ("black", "黑色"),
    ("white", "白色"), ("brown", "棕色"), ("grey", "灰色"), ("pink", "粉色"), ("purple", "紫色"),
    ("golden", "金色"), ("silver", "银色"),
];

#[rustfmt::skip]
pub(super) const THINGS: &[Word] = &[
    ("cup", "杯子"), ("key", "钥匙"), ("book", "书本"), ("hat", "帽子"), ("lamp", "台灯"),
    ("coin", "硬币"), ("ball", "皮球"), ("ring", "戒指"), ("pen", "钢笔"), ("bag", "背包"),
    ("clock", "闹钟"), ("map", "地图"), ("spoon", "勺子"), ("drum", "小鼓"),
];

#[rustfmt::skip]
pub(super) const ROOMS: &[Word] = &[
    ("kitchen", "厨房"), ("garden", "花园"), ("hall", "大厅"), ("cellar", "地窖"),
    ("attic", "阁楼"), ("office", "办公室"), ("library", "书房"), ("garage", "车库"),
    ("studio", "画室"), ("bedroom", "卧室"), ("pantry", "储藏室"), ("workshop", "工房"),
];

#[rustfmt::skip]
pub(super) const DRINKS: &[Word] = &[
    ("tea", "红茶"), ("coffee", "咖啡"), ("milk", "牛奶"), ("water", "清水"), ("juice", "果汁"),
    ("cocoa", "可可"), ("lemonade", "汽水"), ("soup", "热汤"), ("cider", "米酒"), ("broth", "豆浆"),
    ("syrup", "糖浆"), ("punch", "椰汁"),
];

#[rustfmt::skip]
pub(super) const CITIES: &[Word] = &[
    ("Oslo", "奥斯陆"), ("Lima", "利马"), ("Cairo", "开罗"), ("Delhi", "德里"), ("Quito", "基多"),
    ("Basel", "巴塞尔"), ("Porto", "波尔图"), ("Kyoto", "京都"), ("Hanoi", "河内"), ("Seoul", "首尔"),
    ("Accra", "阿克拉"), ("Turin", "都灵"),
];

#[rustfmt::skip]
pub(super) const PETS: &[Word] = &[
    ("dog", "狗"), ("cat", "猫"), ("bird", "鸟"), ("fish", "鱼"), ("horse", "马"), ("goat", "羊"),
    ("rabbit", "兔子"), ("turtle", "乌龟"),
];

#[rustfmt::skip]
pub(super) const PET_NAMES: &[Word] = &[
    ("Rex", "豆豆"), ("Kiki", "花花"), ("Momo", "毛毛"), ("Tip", "球球"), ("Zaza", "点点"),
    ("Bobo", "果果"), ("Lulu", "团团"), ("Nero", "黑黑"),
];

#[rustfmt::skip]
pub(super) const ERRANDS: &[Word] = &[
    ("buy bread", "买面包"), ("wash the car", "洗车"), ("feed the cat", "喂猫"),
    ("call the bank", "打电话给银行"), ("water the roses", "浇花"), ("clean the oven", "擦炉子"),
    ("post the letter", "寄信"), ("fix the door", "修门"), ("paint the fence", "刷篱笆"),
    ("fold the shirts", "叠衬衫"), ("sweep the yard", "扫院子"), ("read the report", "看报告"),
];

#[rustfmt::skip]
pub(super) const ACTIONS: &[Word] = &[
    ("stop", "停下"), ("walk", "走路"), ("jump", "跳跃"), ("turn", "转身"), ("sit", "坐下"),
    ("wave", "挥手"), ("clap", "拍手"), ("sing", "唱歌"),
];

/// Made-up syllables; in Chinese, characters that mean nothing in a row.
#[rustfmt::skip]
pub(super) const SYLLABLES: &[Word] = &[
    ("ba", "石"), ("ko", "云"), ("mi", "竹"), ("zu", "鼎"), ("fe", "舟"), ("lo", "泉"), ("ta", "弓"),
    ("ri", "瓦"), ("vu", "麦"), ("ge", "钟"), ("po", "桥"), ("ny", "星"), ("da", "炉"), ("wi", "砚"),
    ("xo", "琴"), ("hu", "伞"),
];

/// Kinds of things, each with some of them.
#[rustfmt::skip]
pub(super) const GROUPS: &[&[Word]] = &[
    &[("apple", "苹果"), ("pear", "梨子"), ("plum", "李子"), ("grape", "葡萄"), ("cherry", "樱桃")],
    &[("wolf", "老虎"), ("lion", "狮子"), ("bear", "狗熊"), ("tiger", "豹子"), ("sheep", "绵羊")],
    &[("chair", "椅子"), ("table", "桌子"), ("bed", "床铺"), ("shelf", "柜子"), ("sofa", "沙发")],
    &[("shirt", "衬衫"), ("coat", "大衣"), ("sock", "袜子"), ("scarf", "围巾"), ("skirt", "裙子")],
    &[("train", "火车"), ("bus", "公交车"), ("truck", "卡车"), ("ship", "轮船"), ("plane", "飞机")],
    &[("piano", "钢琴"), ("flute", "笛子"), ("violin", "提琴"), ("guitar", "吉他"), ("harp", "古筝")],
    &[("rain", "雨"), ("snow", "雪"), ("fog", "雾"), ("storm", "暴风"), ("hail", "冰雹")],
    &[("doctor", "医生"), ("baker", "面包师"), ("teacher", "老师"), ("farmer", "农民"), ("pilot", "飞行员")],
];

#[rustfmt::skip]
pub(super) const CAPITALS: &[(Word, Word)] = &[
    (("France", "法国"), ("Paris", "巴黎")), (("Spain", "西班牙"), ("Madrid", "马德里")),
    (("Italy", "意大利"), ("Rome", "罗马")), (("Germany", "德国"), ("Berlin", "柏林")),
    (("Japan", "日本"), ("Tokyo", "东京")), (("China", "中国"), ("Beijing", "北京")),
    (("Russia", "俄罗斯"), ("Moscow", "莫斯科")), (("Egypt", "埃及"), ("Cairo", "开罗")),
    (("Greece", "希腊"), ("Athens", "雅典")), (("Thailand", "泰国"), ("Bangkok", "曼谷")),
    (("England", "英国"), ("London", "伦敦")), (("Austria", "奥地利"), ("Vienna", "维也纳")),
    (("Cuba", "古巴"), ("Havana", "哈瓦那")), (("Poland", "波兰"), ("Warsaw", "华沙")),
];

#[rustfmt::skip]
pub(super) const OPPOSITES: &[(Word, Word)] = &[
    (("hot", "热"), ("cold", "冷")), (("big", "大"), ("small", "小")),
    (("long", "长"), ("short", "短")), (("fast", "快"), ("slow", "慢")),
    (("wet", "湿"), ("dry", "干")), (("full", "满"), ("empty", "空")),
    (("rich", "富"), ("poor", "穷")), (("strong", "强"), ("weak", "弱")),
];
