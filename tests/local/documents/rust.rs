//! Reads the product's types from their source: the fields of its JSON documents are documented at their declaration.

use std::collections::BTreeMap;

use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};

/// A field, or a variant.
pub struct Documented {
    pub name: String,
    /// The first line of its documentation comment.
    pub doc: String,
    /// The field's type; `None` for a variant.
    kind: Option<Type>,
}

/// The structs and enums of some source files, by name.
pub struct Types(BTreeMap<String, Vec<Documented>>);

impl Types {
    pub fn read(sources: &[&str]) -> Self {
        let mut types = BTreeMap::new();
        for source in sources {
            for item in syn::parse_file(source).unwrap().items {
                match item {
                    Item::Struct(item) => {
                        let Fields::Named(fields) = item.fields else { continue };
                        let fields = fields.named.into_iter().map(|field| Documented {
                            name: field.ident.unwrap().to_string(),
                            doc: doc(&field.attrs),
                            kind: Some(field.ty),
                        });
                        types.insert(item.ident.to_string(), fields.collect());
                    }
                    Item::Enum(item) => {
                        let variants = item.variants.into_iter().map(|variant| Documented {
                            name: snake_case(&variant.ident.to_string()),
                            doc: doc(&variant.attrs),
                            kind: None,
                        });
                        types.insert(item.ident.to_string(), variants.collect());
                    }
                    _ => {}
                }
            }
        }
        Self(types)
    }

    pub fn of(&self, name: &str) -> &[Documented] {
        self.0.get(name).unwrap_or_else(|| panic!("no type is named {name}"))
    }

    /// Returns one row for each field of the document: its path, its JSON type and its meaning. The fields of nested
    /// objects follow theirs.
    pub fn json(&self, name: &str, path: &str) -> Vec<[String; 3]> {
        let mut rows = Vec::new();
        for field in self.of(name) {
            let path = format!("{path}{}", field.name);
            let shape = self.shape(field.kind.as_ref().expect("a struct's field has a type"));
            rows.push([path.clone(), shape.text, field.doc.clone()]);
            if let Some((nested, suffix)) = shape.nested {
                rows.extend(self.json(&nested, &format!("{path}{suffix}.")));
            }
        }
        rows
    }

    fn shape(&self, kind: &Type) -> Shape {
        let Type::Path(path) = kind else {
            // The only other kind is a reference to text.
            return Shape::plain("string");
        };
        let last = path.path.segments.last().unwrap();
        let inner = || match &last.arguments {
            PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
                Some(GenericArgument::Type(inner)) => self.shape(inner),
                _ => panic!("{} has no type", last.ident),
            },
            _ => panic!("{} has no argument", last.ident),
        };
        match last.ident.to_string().as_str() {
            "String" | "MemberName" | "BaseUrl" => Shape::plain("string"),
            "bool" => Shape::plain("boolean"),
            "f64" | "u64" | "u32" => Shape::plain("number"),
            "Option" => {
                let inner = inner();
                Shape {
                    text: format!("{} or null", inner.text),
                    ..inner
                }
            }
            "Vec" => {
                let inner = inner();
                let nested = inner.nested.map(|(nested, _)| (nested, "[]"));
                Shape {
                    text: format!("array of {}s", inner.text),
                    nested,
                }
            }
            name => match self.of(name) {
                variants if variants.iter().all(|variant| variant.kind.is_none()) => {
                    let words: Vec<_> = variants.iter().map(|variant| format!("`{}`", variant.name)).collect();
                    Shape::plain(&words.join(", "))
                }
                _ => Shape {
                    text: "object".to_owned(),
                    nested: Some((name.to_owned(), "")),
                },
            },
        }
    }
}

struct Shape {
    text: String,
    /// The type of the objects, and the separator between its path and theirs.
    nested: Option<(String, &'static str)>,
}

impl Shape {
    fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            nested: None,
        }
    }
}

fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Converts as serde's `snake_case` does, for labels of metrics; one word is the same in `lowercase`.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
